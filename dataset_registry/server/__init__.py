"""The REST interface: knows requests, tokens and JSON; decides nothing about datasets.

The only home of FastAPI. Every route opens the registry as the caller and calls one method of it.
"""
