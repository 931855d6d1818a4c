#!/bin/busybox sh
# First process of the virtual machine: loads the modules, puts the host's file tree under a few of its own mounts, and
# hands over to guest/start.sh in it. What it needs comes on the kernel's command line.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/modules/$module"; done < /modules/order

wish() { sed -n "s/.*shared_verbs\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
root=$(wish root)
node=$(wish node)
address=$(wish address)
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$options,cache=loose,ro" hostroot /host || echo 'the file tree of the host cannot be mounted'
mount --move /proc /host/proc
mount --move /sys /host/sys
mount --move /dev /host/dev
mkdir -p /host/dev/shm /host/dev/pts
# The repository may lie in a place that is about to be covered.
mkdir /repository
mount -o bind "/host$root" /repository
for place in run tmp var/tmp dev/shm; do mount -t tmpfs tmpfs "/host/$place"; done
if [ ! -d "/host$root" ]; then
  mkdir -p "/host$root"
  mount -o bind /repository "/host$root"
fi
mkdir /host/run/results
mount -t 9p -o "$options,cache=none" results /host/run/results
ip link set lo up

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TMPDIR=/tmp
chroot /host /bin/sh "$root/tests/vm/guest/start.sh" "$root" "$node" "$address"
sync
echo o > /host/proc/sysrq-trigger
sleep 100
