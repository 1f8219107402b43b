"""Lists a log with Google's own client for Python, over REST, and prints the insert ids.

Usage: list_entries.py ENDPOINT RESOURCE_NAMES FILTER asc|desc PAGE_SIZE (the names with commas between)
"""

import sys

from google.auth.credentials import AnonymousCredentials
from google.cloud import logging_v2

endpoint, resource_names, log_filter, order, page_size = sys.argv[1:]
client = logging_v2.Client(
    project="p",
    credentials=AnonymousCredentials(),
    client_options={"api_endpoint": endpoint},
    _use_grpc=False,
)
entries = client.list_entries(
    resource_names=resource_names.split(","),
    filter_=log_filter,
    order_by=f"timestamp {order}",
    page_size=int(page_size),
)
for entry in entries:
    # Decoded by a stranger: the payload has to be a whole audit log entry for it.
    assert entry.payload["serviceName"] == "k8s.io", entry.payload
    print(entry.insert_id)
