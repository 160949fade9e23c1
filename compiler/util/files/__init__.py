"""Files of strangers read with bounds; files of strop's own written whole or not at all."""
