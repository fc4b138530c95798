"""What a run left: its report with pictures, and its network as one of plain DINO."""
