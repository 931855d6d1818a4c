/**
 * Our provider against a program that is not ours: `ibv_rc_pingpong` of rdma-core, on the wire. Its ends exchange their addresses over TCP
 * as text, then send one message to and fro; it sends from where it received, so every message has to come back as it was.
 */
import { spawn } from 'node:child_process'
import { connect, createServer, type Socket } from 'node:net'
import type { QueuePairAddress } from '../../../broker/provider/provider.js'
import { defaultAttributes, Rig } from '../../conformance/provider/rig.js'
import type { Report } from '../report.js'
import { verbsFactory } from './conformance.js'
import { until } from './tools.js'

const PORT = 18_515
const ROUNDS = 200
const LENGTH = 20_000
const WORDS_MS = 20_000
/** lid:queue pair number:packet sequence:gid, hexadecimal, and a zero byte. */
const WORDS_BYTES = 52
/** What the other program sends first when it is the one that begins. */
const ITS_FILLING = 0x7b

/** 3 receives ahead; each message is somewhere else, so that an echo is not what was there before. */
const AHEAD = 3
const SENDS_AT = 0
const RECEIVES_AT = 4 << 20

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')

function wordsOf({ number, packetSequence, path }: QueuePairAddress): Buffer {
  const gid = String(path.gid).replaceAll(':', '')
  return Buffer.from(`${hex(Number(path.lid), 4)}:${hex(number, 6)}:${hex(packetSequence, 6)}:${gid}\0`)
}

function addressOf(words: string): QueuePairAddress {
  const [lid, number, packetSequence, gid] = words.replace('\0', '').split(':') as [string, string, string, string]
  const path = { lid: Number.parseInt(lid, 16), gid: gid.replace(/(.{4})(?=.)/g, '$1:'), mtu: 1024 }
  return { number: Number.parseInt(number, 16), packetSequence: Number.parseInt(packetSequence, 16), path }
}

function bytesFrom(socket: Socket, count: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let got = Buffer.alloc(0)
    socket.on('data', (some) => {
      got = Buffer.concat([got, some])
      if (got.byteLength >= count) resolve(got)
    })
    socket.on('error', reject)
    socket.on('close', () => reject(new Error(`its words ended after ${got.byteLength} bytes`)))
  })
}

/** It listens when it begins to; until then it refuses. */
async function dial(): Promise<Socket> {
  let socket: Socket | null = null
  const attempt = (): Promise<boolean> =>
    new Promise((resolve) => {
      const tried = connect(PORT, '127.0.0.1')
      tried.once('connect', () => {
        socket = tried
        resolve(true)
      })
      tried.once('error', () => resolve(false))
    })
  await until(attempt, 'ibv_rc_pingpong to listen', WORDS_MS)
  return socket!
}

const listen = (): { socket: Promise<Socket>; ready: Promise<void> } => {
  const server = createServer()
  const socket = new Promise<Socket>((resolve) => server.once('connection', (one) => resolve(one)))
  const ready = new Promise<void>((resolve) => server.listen(PORT, '127.0.0.1', resolve))
  return { socket: socket.finally(() => server.close()), ready }
}

function startIt(isClient: boolean): { ended: Promise<number | null>; output: () => string; kill: () => void } {
  const given = ['-d', 'rxe0', '-g', '1', '-p', String(PORT), '-n', String(ROUNDS), '-s', String(LENGTH)]
  const child = spawn('ibv_rc_pingpong', [...given, ...(isClient ? ['127.0.0.1'] : [])], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += String(text)))
  const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  return { ended, output: () => output.trim().split('\n').slice(-3).join('; '), kill: () => void child.kill('SIGKILL') }
}

/** One run of it; `isClient`: it dials us and sends first. */
async function play(isClient: boolean): Promise<Record<string, unknown>> {
  const rig = new Rig(verbsFactory)
  const server = isClient ? listen() : null
  await server?.ready
  const other = startIt(isClient)
  try {
    const player = rig.player(rig.open('ours'))
    for (let index = 0; index < AHEAD; index++)
      player.receive(index, { at: RECEIVES_AT + index * LENGTH, length: LENGTH })
    const socket = server === null ? await dial() : await server.socket
    const words = bytesFrom(socket, WORDS_BYTES)
    if (!isClient) socket.write(wordsOf(player.address))
    player.connectTo(addressOf((await words).subarray(0, WORDS_BYTES).toString()), defaultAttributes)
    if (isClient) socket.write(wordsOf(player.address))
    else socket.write('done\0')
    const wrong = isClient ? answerRounds(rig, player) : beginRounds(rig, player)
    const status = await Promise.race([
      other.ended,
      new Promise<number>((resolve) => setTimeout(resolve, WORDS_MS, -1).unref()),
    ])
    socket.destroy()
    return { status, rounds: ROUNDS, byteLength: LENGTH, differing: wrong, itsWords: other.output() }
  } finally {
    other.kill()
    rig.close()
  }
}

type Ours = ReturnType<Rig['player']>
const receivesOf = (player: Ours): number => player.completions.filter(({ id }) => id < 1000).length
const sendsOf = (player: Ours): number => player.completions.length - receivesOf(player)
const receiveAt = (round: number): number => RECEIVES_AT + (round % AHEAD) * LENGTH

function receiveAgain(player: Ours, round: number): void {
  player.receive(round % AHEAD, { at: receiveAt(round), length: LENGTH })
}

/** We send, it sends the same back; how many came back different. */
function beginRounds(rig: Rig, player: Ours): number {
  let wrong = 0
  for (let round = 0; round < ROUNDS; round++) {
    player.fill(SENDS_AT, LENGTH, round)
    player.send(1000 + round, { at: SENDS_AT, length: LENGTH })
    rig.until(() => receivesOf(player) > round && sendsOf(player) > round, `round ${round}`)
    const isSame = Buffer.compare(player.slice(receiveAt(round), LENGTH), player.slice(SENDS_AT, LENGTH)) === 0
    if (!isSame || player.statuses.some((status) => status !== 'success')) wrong++
    receiveAgain(player, round)
  }
  return wrong
}

/** It sends what it was filled with, then what we had sent it. */
function answerRounds(rig: Rig, player: Ours): number {
  let wrong = 0
  let expected = Buffer.alloc(LENGTH, ITS_FILLING)
  for (let round = 0; round < ROUNDS; round++) {
    rig.until(() => receivesOf(player) > round, `round ${round}`)
    if (Buffer.compare(player.slice(receiveAt(round), LENGTH), expected) !== 0) wrong++
    receiveAgain(player, round)
    player.fill(SENDS_AT, LENGTH, round)
    expected = Buffer.from(player.slice(SENDS_AT, LENGTH))
    player.send(1000 + round, { at: SENDS_AT, length: LENGTH })
    rig.until(() => sendsOf(player) > round, `the answer of round ${round}`)
  }
  return wrong
}

export async function interoperate(): Promise<Pick<Report, 'interoperation'>> {
  const weBegin = await play(false)
  const itBegins = await play(true)
  const interoperation = { program: 'ibv_rc_pingpong of rdma-core', weBegin, itBegins }
  console.log(JSON.stringify(interoperation))
  for (const { status, differing } of [weBegin, itBegins]) {
    if (status !== 0 || differing !== 0) throw new Error(`ibv_rc_pingpong: ${JSON.stringify(interoperation)}`)
  }
  return { interoperation }
}
