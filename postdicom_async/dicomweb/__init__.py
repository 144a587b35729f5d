"""PS3.18: studies, series and instances over the web."""
