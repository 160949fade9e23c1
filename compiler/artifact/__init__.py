"""The artifact: a folder with the model file, its manifest and its report page."""
