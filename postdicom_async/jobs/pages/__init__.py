"""What a job shows: reports, the page, the live page, the terminal."""
