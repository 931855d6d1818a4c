/**
 * Node's own sockets as an application uses them, one write a message. The receiver counts what came after a warm-up; a client ends a
 * stream by ending the connection. Plain JavaScript: no loader may change what is measured.
 *
 *   node net-peer.js server|client <port> latency|rate|bandwidth <bytes> <ms>
 */
import { connect, createServer } from 'node:net'

const [side, port, kind, bytesText, durationText] = process.argv.slice(2)
const bytes = Number(bytesText)
const durationMs = Number(durationText)
const WARM_UP_MS = 300
const message = Buffer.alloc(bytes, 1)

/** Calls back for each whole message. */
function onMessages(socket, whole) {
  let had = 0
  socket.on('data', (data) => {
    for (had += data.length; had >= bytes; had -= bytes) whole()
  })
}

function count(socket) {
  let startMs = 0
  let received = 0
  let lastMs = 0
  const bornMs = performance.now()
  socket.on('data', (data) => {
    lastMs = performance.now()
    if (startMs > 0) received += data.length
    else if (lastMs - bornMs > WARM_UP_MS) startMs = lastMs
  })
  socket.on('end', () => {
    const perMs = received / (lastMs - startMs)
    console.log(`result ${kind === 'rate' ? perMs / bytes / 1e3 : perMs / 1e3}`)
    process.exit()
  })
}

function pingPong(socket) {
  const times = []
  const bornMs = performance.now()
  let sentMs = performance.now()
  onMessages(socket, () => {
    const nowMs = performance.now()
    if (nowMs - bornMs > WARM_UP_MS) times.push(nowMs - sentMs)
    if (nowMs - bornMs > WARM_UP_MS + durationMs) {
      times.sort((a, b) => a - b)
      console.log(`result ${(times[times.length >> 1] / 2) * 1e3}`)
      process.exit()
    }
    sentMs = performance.now()
    socket.write(message)
  })
  socket.write(message)
}

function pour(socket) {
  const untilMs = performance.now() + WARM_UP_MS + durationMs
  const more = () => {
    for (let written = 0; written < 1024; written++) {
      if (!socket.write(message)) {
        if (performance.now() > untilMs) socket.end()
        else socket.once('drain', more)
        return
      }
    }
    if (performance.now() > untilMs) socket.end()
    else setImmediate(more)
  }
  more()
}

if (side === 'server') {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => process.exit())
    if (kind === 'latency') onMessages(socket, () => socket.write(message))
    else count(socket)
    socket.on('close', () => process.exit())
  })
  server.listen({ host: '127.0.0.1', port: Number(port) }, () => console.log('ready'))
} else {
  const socket = connect({ host: '127.0.0.1', port: Number(port), noDelay: true }, () =>
    kind === 'latency' ? pingPong(socket) : pour(socket),
  )
  socket.on('close', () => process.exit())
}
