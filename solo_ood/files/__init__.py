"""Files and folders: read safely, written where they can be, named so that all can show."""
