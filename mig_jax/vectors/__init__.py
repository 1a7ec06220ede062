"""Embeddings of rows and what systems do with them: nearest neighbours, facility location, clusters."""
