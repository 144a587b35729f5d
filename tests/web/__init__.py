"""Pieces of web backends, with Starlette and FastAPI under uvicorn."""
