"""A coding agent's session: a model, tools, and files of its own. Nothing in it runs code or trains."""
