"""From what the user hands over to a captured program and the cases to check it with."""
