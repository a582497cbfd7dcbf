"""What is kept: entries whose key hashes everything that decides their content, never half-written."""
