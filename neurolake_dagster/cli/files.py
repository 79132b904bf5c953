"""The file tools: `neurolake inspect`, `verify`, `head`, `cat` and `convert`."""
