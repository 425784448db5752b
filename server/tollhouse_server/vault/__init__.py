"""Secrets from Vault or OpenBao: the only room that imports hvac."""
