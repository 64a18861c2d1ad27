# Imported by Python as `sitecustomize` when it starts, in a sandbox that is made ahead: imports what is asked for, waits
# for its job, and leaves nothing of itself. Python then goes on as it does without this.
def boot():
    import os, sys
    here = os.path.dirname(__file__)
    sys.path[:] = [path for path in sys.path if path != here]
    sys.path_importer_cache.pop(here, None)
    here, _, rest = os.environ["PYTHONPATH"].partition(":")
    if rest:
        os.environ["PYTHONPATH"] = rest
    else:
        del os.environ["PYTHONPATH"]
    fd = int(os.environ.pop("FUMEHOOD_BOOT"))
    # That of the system, if there is one.
    me = sys.modules.pop("sitecustomize")
    real = None
    try:
        import sitecustomize as real
    except ImportError as error:
        if error.name != "sitecustomize":
            sys.modules["sitecustomize"] = me
            raise
    before = set(sys.modules)
    default, _, asked = os.environ.pop("FUMEHOOD_PRELOAD", "").partition("|")
    for name in default.split():
        __import__(name)
    # A part of a package is seen in it once anybody has imported it, which is nobody's to notice here: but for those
    # that the package imports itself, they are imported again by whoever wants them.
    whole = ("collections", "encodings", "json", "os", "pathlib", "re")
    for name in set(sys.modules) - before:
        package, dot, part = name.rpartition(".")
        if dot and package.partition(".")[0] not in whole:
            sys.modules.pop(name)
            vars(sys.modules[package]).pop(part, None) if package in sys.modules else None
    for name in asked.split():
        __import__(name)
    # What a file beside the program would have been imported in place of.
    loaded = {name.partition(".")[0] for name in sys.modules} - set(sys.builtin_module_names)
    os.write(fd or 1, "".join(f"{name}\n" for name in loaded).encode() + b"\n")

    def read(length):
        said = bytearray()
        while len(said) < length:
            part = os.read(fd, length - len(said))
            if not part:
                os._exit(1)
            said += part
        return bytes(said)

    said = read(int(read(10)))
    if fd:
        os.close(fd)
    count, _, *words = [os.fsdecode(word) for word in said.split(b"\0")[:-1]]
    count = int(count)
    sys.argv[1:] = words[:count]
    sys.orig_argv += words[:count]
    for variable in words[count:]:
        name, _, value = variable.partition("=")
        os.environ[name] = value
    return real


real = boot()
if real is None:
    # As it is where there is none.
    raise ImportError("No module named 'sitecustomize'", name="sitecustomize")
import sys

sys.modules["sitecustomize"] = real
