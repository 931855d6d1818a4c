/** Orders to the agent of the other machine: one JSON line for an order, one for its answer. */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { Agent, addresses, type NodeName } from './agent.js'
import { until } from './tools.js'

const PORT = 7600
const BOOT_MS = 120_000

type Method = Exclude<keyof Agent, 'broker'>
type Given<Name extends Method> = Parameters<Agent[Name]>
type Answer<Name extends Method> = Awaited<ReturnType<Agent[Name]>>

interface Order {
  readonly id: number
  readonly method: Method
  readonly given: readonly unknown[]
}
interface Reply {
  readonly id: number
  readonly answer?: unknown
  readonly failure?: string
}

const write = (socket: Socket, message: Order | Reply): boolean => socket.write(`${JSON.stringify(message)}\n`)

/** Obeys until the other machine hangs up. */
export async function serveAgent(name: NodeName): Promise<void> {
  const agent = new Agent(name)
  const server = createServer().listen(PORT, addresses[name])
  const [socket] = (await once(server, 'connection')) as [Socket]
  server.close()
  createInterface(socket).on('line', (line) => {
    const { id, method, given } = JSON.parse(line) as Order
    const run = agent[method] as (...values: readonly unknown[]) => Promise<unknown>
    run.apply(agent, given as unknown[]).then(
      (answer) => write(socket, { id, answer }),
      (error: unknown) => write(socket, { id, failure: error instanceof Error ? error.message : String(error) }),
    )
  })
  socket.on('error', () => socket.destroy())
  await once(socket, 'close')
  await agent.end()
}

/** The agent of the other machine, as soon as that is up. */
export class RemoteAgent {
  readonly #socket: Socket
  readonly #waiting = new Map<number, { resolve: (answer: never) => void; reject: (error: Error) => void }>()
  #lastId = 0

  private constructor(socket: Socket) {
    this.#socket = socket
    createInterface(socket).on('line', (line) => {
      const { id, answer, failure } = JSON.parse(line) as Reply
      const waiting = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (failure === undefined) waiting?.resolve(answer as never)
      else waiting?.reject(new Error(`on the other machine: ${failure}`))
    })
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the other machine hung up'))
    })
  }

  static async dial(name: NodeName): Promise<RemoteAgent> {
    let socket: Socket | null = null
    const attempt = async (): Promise<boolean> => {
      const tried = connect({ port: PORT, host: addresses[name], timeout: 2000 })
      return new Promise((resolve) => {
        tried.once('connect', () => {
          tried.setTimeout(0)
          socket = tried
          resolve(true)
        })
        for (const end of ['error', 'timeout'] as const) {
          tried.once(end, () => {
            tried.destroy()
            resolve(false)
          })
        }
      })
    }
    await until(attempt, `machine ${name}`, BOOT_MS)
    return new RemoteAgent(socket!)
  }

  call<Name extends Method>(method: Name, ...given: Given<Name>): Promise<Answer<Name>> {
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      write(this.#socket, { id, method, given })
    })
  }

  hangUp(): void {
    this.#socket.destroy()
  }
}
