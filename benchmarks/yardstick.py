"""Lays the learning curve of our trainer over that of the plain PyTorch reference: same data, sizes, batches, rate, audio hours.

    omniscribe train --config benchmarks/yardstick.toml                       (its log: runs/yardstick/log.jsonl)
    python3 benchmarks/yardstick.py OUR_LOG PEER_LOG --out benchmarks/results/yardstick.json --picture benchmarks/yardstick.svg

PEER_LOG: JSON lines `{"kind": "train", "audio_hours", "loss_per_char"}`, means since the line before. Standard library only.
"""
import argparse
import datetime
import json

p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
p.add_argument("ours")
p.add_argument("peer")
p.add_argument("--setup", required=True, help="what both were run with, in words")
p.add_argument("--out", required=True)
p.add_argument("--picture", required=True)
a = p.parse_args()


def read(path, kind, loss):
    lines = [json.loads(line) for line in open(path)]
    return [(x["audio_hours"], x[loss]) for x in lines if x.get(kind[0]) == kind[1]]


ours, peer = read(a.ours, ("event", "train"), "loss"), read(a.peer, ("kind", "train"), "loss_per_char")


def mean(curve, low, high):
    inside = [loss for hours, loss in curve if low < hours <= high]
    return sum(inside) / len(inside) if inside else None


last = int(min(ours[-1][0], peer[-1][0]) + 0.1)
rows = []
for hour in range(1, last + 1):
    pair = mean(ours, hour - 1, hour + 0.02), mean(peer, hour - 1, hour + 0.02)
    if None not in pair:
        rows.append({"audio_hours": hour, "ours": round(pair[0], 4), "torch": round(pair[1], 4)})
cpu = next(line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
result = {"benchmark": "yardstick", "date": str(datetime.date.today()), "cpu": cpu, "command": a.setup, "rows": rows}
with open(a.out, "w") as f:
    f.write(json.dumps(result, indent=1) + "\n")

width, height, margin = 900, 420, 50
right, top = max(h for h, _ in ours + peer), max(v for _, v in ours + peer)
place = lambda h, v: f"{margin + h / right * (width - 2 * margin):.1f},{height - margin - v / top * (height - 2 * margin):.1f}"
svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
       '<rect width="100%" height="100%" fill="white"/>',
       f'<text x="{margin}" y="24" font-size="15">CTC loss per character (augmented training clips) over audio hours</text>']
for i in range(6):
    x, y = place(right * i / 5, 0).split(",")[0], place(0, top * i / 5).split(",")[1]
    svg.append(f'<line x1="{margin}" x2="{width - margin}" y1="{y}" y2="{y}" stroke="#dddddd"/><text x="{margin - 6}" y="{y}" text-anchor="end">{top * i / 5:.1f}</text>')
    svg.append(f'<text x="{x}" y="{height - margin + 18}" text-anchor="middle">{right * i / 5:.1f}</text>')
for name, curve, colour, line in (("omniscribe", ours, "#1b6ca8", 50), ("PyTorch reference", peer, "#d1495b", 68)):
    svg.append(f'<polyline points="{" ".join(place(h, v) for h, v in curve)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    svg.append(f'<text x="{width - margin}" y="{line}" text-anchor="end" fill="{colour}">{name}</text>')
with open(a.picture, "w") as f:
    f.write("\n".join(svg + ["</svg>"]) + "\n")
print(json.dumps(result, indent=1))
