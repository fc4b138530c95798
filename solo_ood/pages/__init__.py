"""What people read: Markdown tables, and self-contained HTML pages from templates."""
