"""Compares a table with an index, whole and by itself: with public clients, and nothing of Driftless.

Reads one JSON object from standard input:
  {"mysql": "host:port", "node": "http://…", "table": "db.t", "index": "i", "key": ["id"],
   "fields": {"field": "column"}, "vectors": {"vector field": "text column"}, "scrolls": true}
Writes {"rows": n, "documents": n, "missing": […], "extra": […], "different": […], "stale": […]} with sorted ids.

A vector is stale when it is not the one that most documents with the same text have; there must be one where there is a
text, and none where there is none.
"""
import collections
import datetime
import decimal
import json
import struct
import sys

import pymysql
from opensearchpy import OpenSearch, helpers

asked = json.load(sys.stdin)
host, port = asked["mysql"].rsplit(":", 1)
node = OpenSearch(asked["node"], timeout=120)


def as_json(value):
    if isinstance(value, decimal.Decimal):
        return value
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    return value


def id_of(row):
    parts = [str(row[column]) for column in asked["key"]]
    if len(parts) == 1:
        return parts[0]
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)


def as_floats(vector):
    return None if vector is None else struct.pack(f"{len(vector)}f", *vector)


def documents():
    node.indices.refresh(index=asked["index"])
    everything = {"query": {"match_all": {}}}
    if asked["scrolls"]:
        return helpers.scan(node, index=asked["index"], query=everything, size=2000)
    return node.search(index=asked["index"], body=dict(everything, size=10000))["hits"]["hits"]


rows = {}
mysql = pymysql.connect(host=host, port=int(port), user="root", password="", charset="utf8mb4",
                        cursorclass=pymysql.cursors.SSDictCursor)
with mysql.cursor() as cursor:
    cursor.execute("SET time_zone = '+00:00'")
    cursor.execute(f"SELECT * FROM {asked['table']}")
    for row in cursor:
        rows[id_of(row)] = row

found = {hit["_id"]: hit["_source"] for hit in documents()}

usual = collections.defaultdict(collections.Counter)
for identity, row in rows.items():
    for field, column in asked["vectors"].items():
        vector = found.get(identity, {}).get(field)
        usual[field, row[column]][as_floats(vector)] += 1

different, stale = set(), set()
for identity, row in rows.items():
    if identity not in found:
        continue
    document = found[identity]
    expected = set(asked["fields"])
    for field, column in asked["fields"].items():
        if field not in document or document[field] != as_json(row[column]):
            different.add(identity)
    for field, column in asked["vectors"].items():
        text, vector = row[column], as_floats(document.get(field))
        expected.add(field)
        if text is None or not text.strip():
            if vector is not None:
                stale.add(identity)
        elif vector is None or usual[field, text].most_common(1)[0][0] != vector:
            stale.add(identity)
    if set(document) - expected:
        different.add(identity)

print(json.dumps({
    "rows": len(rows),
    "documents": len(found),
    "missing": sorted(set(rows) - set(found)),
    "extra": sorted(set(found) - set(rows)),
    "different": sorted(different),
    "stale": sorted(stale),
}))
