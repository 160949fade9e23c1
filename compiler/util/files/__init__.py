"""Files from outside are read with bounds; strop's own files are written whole or not at all."""
