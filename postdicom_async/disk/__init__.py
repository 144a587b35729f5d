"""Where the disk is touched: sources to send, and a safe folder to receive into."""
