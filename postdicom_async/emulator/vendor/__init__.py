"""PostDICOM's nouns, which both of its APIs and the pages of shares stand on: orders, folders, shares."""
