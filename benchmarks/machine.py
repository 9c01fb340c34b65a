"""What results say of the machine they were measured on."""
import os


def cpu_model():
    """Name, family and what matters here of the instructions."""
    seen = {}
    for line in open("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        seen.setdefault(key.strip(), value.strip())
    flags = seen.get("flags", "").split()
    names = {"avx512f": "AVX-512", "avx512_bf16": "BF16", "avx512_vnni": "VNNI", "amx_tile": "AMX"}
    have = " ".join(name for flag, name in names.items() if flag in flags)
    return f"{seen.get('model name')} (family {seen.get('cpu family')}, model {seen.get('model')}, {have}), {os.cpu_count()} cores"
