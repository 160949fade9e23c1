"""``report.html``: the page of an artifact that is for people."""
