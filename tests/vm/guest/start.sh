#!/bin/sh
# Runs in the virtual machine, in the host's file tree: makes the Soft-RoCE device, then runs the checks. With an address it is one machine
# of two, and the device is on the wire between them; else on a pair of interfaces of its own.
root=$1
node=$2
address=$3
ulimit -l unlimited
if [ -n "$address" ]; then
  interface=eth0
else
  interface=veth0
  address=10.77.0.1/24
  ip link add veth0 type veth peer name veth1
  ip link set veth1 up
fi
ip link set "$interface" up
ip address add "$address" dev "$interface"
# The IPv6 addresses of the interfaces make GIDs too; they come a moment later.
rdma link add rxe0 type rxe netdev "$interface"
sleep 1
rdma link show
# Counters are read afresh each time: the cases wait for one of them.
echo 0 > /sys/class/infiniband/rxe0/ports/1/hw_counters/lifespan
cd /tmp || exit 1
"$node" "$root/.cache/vm/built/tests/vm/guest/main.js" /run/results
echo "the checks ended with status $?"
