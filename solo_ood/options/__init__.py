"""Options of commands: a field says its default, range and help, once for all."""
