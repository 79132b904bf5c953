"""Arrow arrays as nodes: each module holds a family of types, both ways.

An array node is ``[kind, validity, ...]``; the row count is never stored in it, the parent
knows it. Encoding is in two steps: `prepare` looks at a whole chunk once, the prepared chunk
then encodes any range of its rows as a page.
"""
