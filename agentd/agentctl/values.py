"""Messages of agentd.v1 as the values that `--output json` prints.

The schema is the protocol's: fields under their names there, in their order. What differs, so that programs
need no knowledge of protobuf: numbers are numbers (uint64 too), an absent optional field is null, an enum is
its lower-case word (`ready`), and an instance's endpoint is its `node` and `port`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentd.agentctl.text import duration

if TYPE_CHECKING:
    from google._upb._message import FieldDescriptor as UpbFieldDescriptor
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

    from agentd.v1 import control_pb2 as pb
    from agentd.v1 import discovery_pb2

    Field = FieldDescriptor | UpbFieldDescriptor

# In the order in which a person looks for them; the rest of the fields follow.
_INSTANCE_FIRST = ("id", "pool", "port", "pid", "state")


def as_value(message: Message) -> dict[str, Any]:
    """`message` as JSON carries it; every field is there, set or not."""
    value = {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}
    return _instance(value) if message.DESCRIPTOR.name in ("Instance", "InstanceEndpoint") else value


def state_word(instance: pb.Instance | discovery_pb2.InstanceEndpoint) -> str:
    """The word for the instance's state: `ready`. A state newer than this program: its number."""
    return _enum_word(instance.DESCRIPTOR.fields_by_name["state"], instance.state)


def cause(instance: pb.Instance) -> str:
    """Why it is in its state, or what else is wrong with it; empty where all is well."""
    if instance.HasField("loop_blocked_s"):
        stood = f"its event loop has stood still for {duration(instance.loop_blocked_s)}"
        return f"{instance.cause}; {stood}" if instance.cause else stood
    return instance.cause


def _field(message: Message, field: Field) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return {key: value[key] for key in sorted(value)}
        return [as_value(one) for one in value] if field.message_type is not None else list(value)
    if field.has_presence and not message.HasField(field.name):
        return None
    if field.message_type is not None:
        return as_value(value)
    return _enum_word(field, value) if field.enum_type is not None else value


def _instance(value: dict[str, Any]) -> dict[str, Any]:
    endpoint = value.pop("endpoint") or {"node": "", "port": 0}
    value |= endpoint
    return {name: value[name] for name in _INSTANCE_FIRST if name in value} | value


def _enum_word(field: Field, number: int) -> str:
    kind = field.enum_type
    assert kind is not None, f"{field.full_name} is an enum"
    known = kind.values_by_number.get(number)
    if known is None:
        return str(number)
    # INSTANCE_STATE_READY of InstanceState: the name of the type in front, as buf's rules ask.
    prefix = "".join(f"_{c}" if c.isupper() else c for c in kind.name).lstrip("_").upper() + "_"
    return known.name.removeprefix(prefix).lower()
