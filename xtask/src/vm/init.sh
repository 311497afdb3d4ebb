#!/bin/busybox sh
# The guest's first program: the host's files, read-only, under a layer in memory; then the job on top of them.
# Lines that begin with "vm: " are for xtask; the last one is "vm: exit CODE".
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
export PATH=/bin
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

give_up() {
    echo "vm: $*"
    poweroff -f
}

echo "vm: booted $(uname -r)"
for module in /modules/*.ko; do
    insmod "$module" || echo "vm: $module was not loaded"
done

mkdir -p /lower /upper /new
# cache=loose: nobody changes the host's files while the guest reads them, nor may the guest.
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower || give_up "no files of the host"
mount -t tmpfs tmpfs /upper
mkdir /upper/changed /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/changed,workdir=/upper/work overlay /new || give_up "no overlay"
for place in /proc /sys /dev; do
    mount --move "$place" "/new$place"
done
mkdir -p /new/dev/shm /new/dev/pts
mount -t tmpfs tmpfs /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs -o mode=755 tmpfs /new/run
# Not a mount on /tmp: what is built and cached may lie there on the host.
mkdir -m 1777 /new/run/tmp
mkdir /new/run/lock
ip link set lo up
hostname celeryscope-vm

mkdir /new/run/vm
cp /bin/busybox /job /new/run/vm
echo "vm: the host's files are there"
exec switch_root /new /run/vm/busybox sh -c '
    TMPDIR=/run/tmp HOME=/root /bin/sh /run/vm/job </dev/null 2>&1
    echo "vm: exit $?"
    exec /run/vm/busybox poweroff -f'
