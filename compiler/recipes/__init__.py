"""Named pipelines: their schema, their passes, their files."""
