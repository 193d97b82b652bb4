"""The HTTP face: the API, the workers' queue, archives and metrics, for who has a token. FastAPI has its door here."""
