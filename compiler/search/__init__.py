"""Search over options of passes: many builds, of which none is beaten in everything it is for."""
