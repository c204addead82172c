"""All routes of the API, as its OpenAPI document has them: a test of each cannot forget a new one."""

import json
from pathlib import Path

DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
ROUTES = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
READING = [route for route in ROUTES if route[1] == "get"]
WRITING = [route for route in ROUTES if route[1] != "get"]


def named(route):
    return f"{route[1].upper()} {route[0].rpartition('/api/v1/')[2]}"


def example(schema, values, name=""):
    """Returns a value that a schema allows, with what is known by name."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], values, name)
    if schema.get("type") == "array":
        return [example(schema["items"], values, name)]
    if schema.get("type") == "object" and "properties" in schema:
        if "dag_run_id" in schema["properties"]:
            return {each: values[each] for each in schema["properties"] if each in values}
        return {
            each: example(inner, values, each)
            for each, inner in schema["properties"].items()
            if each in schema.get("required", ()) or each in values
        }
    if name in values and not isinstance(values[name], dict):
        return values[name]
    if "enum" in schema:
        return schema["enum"][0]
    return {"string": "x", "integer": 1, "number": 1.0, "boolean": True, "object": {}}.get(schema.get("type"), "x")
