/** One run of the virtual machine: from boot to power-off, its console on our standard error. */
import { spawn } from 'node:child_process'
import type { Image } from './image.js'

export interface MachineOptions {
  readonly image: Image
  /** Folder of this repository, which the guest sees under the same name, read-only. */
  readonly root: string
  /** Folder of the host that the guest may write to. */
  readonly results: string
  readonly timeoutMs: number
  /** One machine of two on a wire; alone it has no network. */
  readonly wire?: Wire
}

export interface Wire {
  /** Of this machine, with the length of its network. */
  readonly address: string
  /** Last byte of its Ethernet address. */
  readonly number: number
  /** Unix sockets of this end and of the other one: packets are datagrams, so neither end waits for the other. */
  readonly here: string
  readonly there: string
}

function machineArguments({ image, root, results, wire }: MachineOptions): string[] {
  const share = (path: string, tag: string, more: string): string[] => [
    '-virtfs',
    `local,path=${path},mount_tag=${tag},security_model=none,multidevs=remap${more}`,
  ]
  return [
    ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', '3072', '-smp', '2'],
    ...['-nographic', '-no-reboot', '-device', 'virtio-rng-pci'],
    ...(wire === undefined ? ['-nic', 'none'] : networkOf(wire)),
    ...['-kernel', image.kernel, '-initrd', image.initialFiles],
    ...[
      '-append',
      `console=ttyS0 quiet panic=-1 shared_verbs.root=${root} shared_verbs.node=${process.execPath} shared_verbs.address=${wire?.address ?? ''}`,
    ],
    ...share('/', 'hostroot', ',readonly=on'),
    ...share(results, 'results', ''),
  ]
}

function networkOf({ number, here, there }: Wire): string[] {
  const ends = `local.type=unix,local.path=${here},remote.type=unix,remote.path=${there}`
  return ['-netdev', `dgram,id=wire,${ends}`, '-device', `virtio-net-pci,netdev=wire,mac=52:54:00:00:00:0${number}`]
}

/** Settles when the machine is off; rejects when it had to be ended. */
export function runMachine(options: MachineOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    // Emulation takes all it gets; whoever else works here goes first.
    const machine = spawn('nice', ['-n', '5', 'qemu-system-x86_64', ...machineArguments(options)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    machine.stdout.pipe(process.stderr)
    const timer = setTimeout(() => machine.kill('SIGKILL'), options.timeoutMs)
    const end = (): boolean => machine.kill('SIGKILL')
    process.once('exit', end)
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
    machine.on('error', reject)
    machine.on('exit', (code, signal) => {
      clearTimeout(timer)
      process.off('exit', end)
      if (code === 0) resolve()
      else reject(new Error(`the machine ended with ${signal ?? code} (its time is ${options.timeoutMs} ms)`))
    })
  })
}
