"""What both APIs move instances with."""
