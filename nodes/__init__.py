"""The nodes: a schema and a few lines each, one file per menu section."""
