"""What a plugin's hook returns: a technique's name and where to find it, nothing loaded yet."""

import attrs


@attrs.frozen
class Technique:
    """An entry of the catalogue.

    Args:
        name: The name that recipes use, unique within its kind and distribution.
        summary: One sentence for `micronet list-plugins`.
        target: The class, as `"package.module:Class"`; imported on first use.
        extra: The extra of the plugin's distribution that the technique needs, if any.
    """

    name: str = attrs.field(validator=attrs.validators.instance_of(str))
    summary: str = attrs.field(validator=attrs.validators.instance_of(str))
    target: str = attrs.field(validator=attrs.validators.matches_re(r"[\w.]+:\w+"))
    extra: str | None = None
