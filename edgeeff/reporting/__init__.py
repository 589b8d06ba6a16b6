"""Records as one page for people: `records` reads them, `html` and `markdown` write what they say."""
