#!/usr/bin/env python3
"""Reads an event hub with Microsoft's client and prints what it saw, as JSON.

Usage: event_hubs_client.py CONNECTION_STRING

The client indexes the fields of AMQP performatives without looking how many there are, and so
fails on lists whose trailing nulls and defaults are left out, which the AMQP specification allows
and the stand-in's library does: `patch` fills them up. It also keeps the client from setting
TCP options to what it read of them: the segments of a loopback are larger than Linux lets one set.
"""

import json
import sys
import threading
from datetime import datetime, timedelta, timezone

from azure.eventhub import EventHubConsumerClient
from azure.eventhub._pyamqp import _decode, _transport
from azure.eventhub.exceptions import EventHubError

# How many fields a performative has: open, begin, attach, flow, transfer, disposition, detach,
# end, close.
FIELDS = {16: 10, 17: 8, 18: 14, 19: 11, 20: 11, 21: 6, 22: 3, 23: 1, 24: 1}
# What the specification says of fields that are left out, where the client needs to know.
DEFAULTS = {(16, 2): 4294967295, (16, 3): 65535, (17, 4): 4294967295, (18, 3): 2, (18, 4): 0}
PATIENCE_S = 30


def patch():
    plain = _decode.decode_frame

    def decode_frame(data):
        kind, fields = plain(data)
        payload = [fields.pop()] if kind == 20 else []
        fields += [None] * (FIELDS.get(kind, 0) - len(fields))
        for (of, index), value in DEFAULTS.items():
            if of == kind and fields[index] is None:
                fields[index] = value
        return kind, fields + payload

    _decode.decode_frame = _transport.decode_frame = decode_frame
    _transport.KNOWN_TCP_OPTS = {"TCP_NODELAY"}


def client(connection_string, group="$Default"):
    return EventHubConsumerClient.from_connection_string(
        connection_string, consumer_group=group, retry_total=0, load_balancing_interval=1
    )


def read(connection_string, count, **where):
    """The first events from a position, as (partition, number, offset, body)."""
    got, enough = [], threading.Event()
    with client(connection_string) as consumer:

        def on_event(context, event):
            if event is not None:
                number = event.sequence_number
                got.append((context.partition_id, number, event.offset, event.body_as_str()))
                if len(got) >= count:
                    enough.set()

        def on_error(context, error):
            print(f"reading {where}: {error!r}", file=sys.stderr)
            enough.set()

        def receive():
            consumer.receive(on_event, on_error=on_error, max_wait_time=1, **where)

        reader = threading.Thread(target=receive)
        reader.start()
        enough.wait(PATIENCE_S)
        consumer.close()
        reader.join(PATIENCE_S)
    return sorted(got)


def failure(connection_string, group="$Default", **where):
    """The error that reading ends with."""
    said, told = [], threading.Event()
    with client(connection_string, group) as consumer:

        def on_error(context, error):
            said.append(error)
            told.set()

        def receive():
            consumer.receive(lambda *_: None, on_error=on_error, max_wait_time=1, **where)

        reader = threading.Thread(target=receive)
        reader.start()
        told.wait(PATIENCE_S)
        consumer.close()
        reader.join(PATIENCE_S)
    return said[0] if said else None


def stolen(connection_string):
    """What a receiver hears when one with a higher owner level comes."""
    where = {"partition_id": "0", "starting_position": "-1"}
    heard, attached, told = [], threading.Event(), threading.Event()
    first, second = client(connection_string), client(connection_string)

    def on_error(context, error):
        heard.append(error)
        told.set()

    def lower():
        first.receive(lambda *_: attached.set(), on_error=on_error, owner_level=1, **where)

    def higher():
        second.receive(lambda *_: None, owner_level=2, **where)

    threads = [threading.Thread(target=lower), threading.Thread(target=higher)]
    threads[0].start()
    attached.wait(PATIENCE_S)
    threads[1].start()
    told.wait(PATIENCE_S)
    first.close()
    second.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    return heard[0] if heard else None


def kind(error):
    return f"{type(error).__name__}: {error}" if isinstance(error, Exception) else None


def main(connection_string):
    patch()
    saw = {}
    with client(connection_string) as consumer:
        hub = consumer.get_eventhub_properties()
        saw["hub"] = {"name": hub["eventhub_name"], "partitions": hub["partition_ids"]}
        saw["partitions"] = {}
        for partition in hub["partition_ids"]:
            told = consumer.get_partition_properties(partition)
            saw["partitions"][partition] = [
                told["beginning_sequence_number"],
                told["last_enqueued_sequence_number"],
                told["is_empty"],
            ]
    saw["all"] = read(connection_string, 20, starting_position="-1")
    saw["behind_number"] = read(
        connection_string, 5, partition_id="0", starting_position=4
    )
    offset = next(it[2] for it in saw["all"] if it[0] == "0" and it[1] == 7)
    saw["behind_offset"] = read(
        connection_string, 2, partition_id="0", starting_position=offset
    )
    saw["at_offset"] = read(
        connection_string,
        3,
        partition_id="0",
        starting_position=offset,
        starting_position_inclusive=True,
    )
    half_an_hour_ago = datetime.now(timezone.utc) - timedelta(minutes=30)
    saw["since"] = read(
        connection_string, 5, partition_id="1", starting_position=half_an_hour_ago
    )
    saw["stolen"] = kind(stolen(connection_string))
    saw["no_group"] = kind(
        failure(connection_string, group="none", partition_id="0", starting_position="-1")
    )
    try:
        other = connection_string.replace("EntityPath=", "EntityPath=no-such-")
        with client(other) as consumer:
            consumer.get_eventhub_properties()
    except EventHubError as error:
        saw["no_hub"] = kind(error)
    print(json.dumps(saw))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
