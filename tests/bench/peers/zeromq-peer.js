/**
 * ZeroMQ as an application in Node uses it: a PAIR plays ping-pong, PUSH and PULL make a stream; the receiver counts what came after a
 * warm-up. Plain JavaScript: no loader may change what is measured.
 *
 *   ZEROMQ_FROM=<folder with node_modules> node zeromq-peer.js server|client <port> latency|rate|bandwidth <bytes> <ms>
 */
import { createRequire } from 'node:module'

const zeromq = createRequire(`${process.env['ZEROMQ_FROM']}/`)('zeromq')
const [side, port, kind, bytesText, durationText] = process.argv.slice(2)
const bytes = Number(bytesText)
const durationMs = Number(durationText)
const address = `tcp://127.0.0.1:${port}`
const WARM_UP_MS = 300
const message = Buffer.alloc(bytes, 1)
/** Shorter than any message: the last one. */
const end = Buffer.alloc(1)

async function answer() {
  const socket = new zeromq.Pair()
  await socket.bind(address)
  console.log('ready')
  for (;;) {
    const [received] = await socket.receive()
    if (received.length === end.length) break
    await socket.send(received)
  }
}

async function ask() {
  const socket = new zeromq.Pair()
  socket.connect(address)
  const times = []
  const bornMs = performance.now()
  for (let nowMs = bornMs; nowMs - bornMs < WARM_UP_MS + durationMs; ) {
    const sentMs = performance.now()
    await socket.send(message)
    await socket.receive()
    nowMs = performance.now()
    if (sentMs - bornMs > WARM_UP_MS) times.push(nowMs - sentMs)
  }
  await socket.send(end)
  times.sort((a, b) => a - b)
  console.log(`result ${(times[times.length >> 1] / 2) * 1e3}`)
}

async function count() {
  const socket = new zeromq.Pull()
  await socket.bind(address)
  console.log('ready')
  let bornMs = 0
  let startMs = 0
  let received = 0
  for (;;) {
    const [one] = await socket.receive()
    if (one.length === end.length) break
    if (startMs > 0) received++
    else {
      const nowMs = performance.now()
      bornMs ||= nowMs
      if (nowMs - bornMs > WARM_UP_MS) startMs = nowMs
    }
  }
  const perMs = received / (performance.now() - startMs)
  console.log(`result ${kind === 'rate' ? perMs / 1e3 : (perMs * bytes) / 1e3}`)
}

async function pour() {
  const socket = new zeromq.Push()
  socket.connect(address)
  const untilMs = performance.now() + WARM_UP_MS + durationMs
  while (performance.now() < untilMs) for (let sent = 0; sent < 64; sent++) await socket.send(message)
  await socket.send(end)
}

const isLatency = kind === 'latency'
if (side === 'server') await (isLatency ? answer() : count())
else await (isLatency ? ask() : pour())
