"""The REST interface: requests, tokens and JSON.

The only user of FastAPI. Every route opens the registry as the caller and calls one method of it.
"""
