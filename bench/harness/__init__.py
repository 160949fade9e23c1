"""``strop bench``: engines, peers, and the duel in which they are timed side by side."""
