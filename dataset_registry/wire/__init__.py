"""Requests and responses of REST as JSON models, with the field names of the original design.

The server converts records to them, the client converts them to records. Fields are only ever added
(tests/server/openapi.json has the stored description).
"""
