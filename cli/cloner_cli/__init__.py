"""The `cloner` command: one module per noun; talks to the API."""
