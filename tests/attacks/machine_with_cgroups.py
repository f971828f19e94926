"""Runs tests on a machine whose system gives its users a part of its tree of cgroups, which not every machine has: a
small virtual one with a kernel of Debian's, cgroups of version 2 and nothing else, and this machine's files, of which
it can change none. There the tests run as a user like any other, in a cgroup such as `systemd-run --user --scope -p
Delegate=yes` gives.

    apt-get install --no-install-recommends qemu-system-x86 busybox-static cpio
    apt-get download linux-image-6.1.0-57-amd64     # or another
    dpkg -x linux-image-*.deb FOLDER                # nothing is installed
    python -m tests.attacks.machine_with_cgroups FOLDER tests/attacks/test_hostile_cgroup.py

Prints what the tests print, and ends as they do. The processor is emulated, so that any machine can do it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODULES = """\
drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev
drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci drivers/block/virtio_blk
fs/netfs/netfs fs/fscache/fscache net/9p/9pnet net/9p/9pnet_virtio fs/9p/9p fs/overlayfs/overlay
lib/libcrc32c arch/x86/crypto/crc32c-intel crypto/crc32c_generic lib/crc16 fs/mbcache fs/jbd2/jbd2 fs/ext4/ext4
"""
USER = 1000
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /lower /upper /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod $module 2>/dev/null; done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=1048576 files /lower
/bin/busybox mount -t ext4 /dev/vda /upper
/bin/busybox mkdir -p /upper/changed /upper/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/changed,workdir=/upper/work overlay /root
for place in proc sys dev; do /bin/busybox mkdir -p /root/$place; done
/bin/busybox mount --move /proc /root/proc
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /bin/sh /start
"""
START = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mkdir -m 1777 /tmp.new && mount --bind /tmp.new /tmp
ip link set lo up 2>/dev/null
chmod 711 /root
cd /sys/fs/cgroup
echo "+memory +pids" > cgroup.subtree_control
mkdir user user/ours
echo "+memory +pids" > user/cgroup.subtree_control
chown {user}:{user} user/ours user/ours/cgroup.procs user/ours/cgroup.subtree_control user/ours/cgroup.threads
mkdir -p /home/{user} && chown {user}:{user} /home/{user}
cd {here}
sh -c 'echo $$ > /sys/fs/cgroup/user/ours/cgroup.procs; exec "$@"' sh \\
  setpriv --reuid {user} --regid {user} --clear-groups env HOME=/home/{user} USER=tester TERM=dumb \\
  PATH={path} PYTHONPATH={here}/src:{here} PYTHONDONTWRITEBYTECODE=1 {command} < /dev/null
echo "ended with $?"
sync
echo o > /proc/sysrq-trigger
sleep 60
"""


def main(kernel: Path, command: list[str]) -> int:
    """Build the machine in a folder that goes with it, run `command` there, and end as it does."""
    with tempfile.TemporaryDirectory(prefix="fallow-machine-") as name:
        folder = Path(name)
        _initial_files(folder, kernel, command)
        disk = folder / "disk"
        with disk.open("wb") as file:
            file.truncate(8 << 30)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(disk)], check=True)
        image = next((kernel / "boot").glob("vmlinuz-*"))
        machine = [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "4096", "-smp", "2",
            "-nographic", "-no-reboot", "-kernel", str(image), "-initrd", str(folder / "initrd"),
            "-append", "console=ttyS0 quiet panic=-1 oops=panic cgroup_no_v1=all",
            "-drive", f"file={disk},if=virtio,format=raw,cache=unsafe",
            "-virtfs", "local,path=/,mount_tag=files,security_model=none,readonly=on,multidevs=remap", "-nic", "none",
        ]  # fmt: skip
        ended = 1
        with subprocess.Popen(machine, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for line in running.stdout:
                print(line, end="", flush=True)
                if line.startswith("ended with "):
                    ended = int(line.split()[-1])
        return ended


def _initial_files(folder: Path, kernel: Path, command: list[str]) -> None:
    """What the kernel starts from: busybox, the modules that it needs to see the rest, and what happens then."""
    root = folder / "initial"
    (root / "bin").mkdir(parents=True)
    (root / "modules").mkdir()
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin" / "busybox")
    modules = next((kernel / "lib" / "modules").iterdir()) / "kernel"
    for number, module in enumerate(MODULES.split()):
        shutil.copy(modules / f"{module}.ko", root / "modules" / f"{number:02}.ko")
    here = Path(__file__).resolve().parents[2]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    start = START.format(user=USER, here=here, path=path, command=shlex.join(command))
    init = INIT.replace("exec ", f"/bin/busybox cat > /root/start <<'END'\n{start}\nEND\nexec ")
    (root / "init").write_text(init)
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in [root, *root.rglob("*")])
    with (folder / "initrd").open("wb") as file:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=names.encode(), stdout=file, cwd=root, check=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", os.getcwd(), *sys.argv[2:]]
    raise SystemExit(main(Path(sys.argv[1]), tests))
