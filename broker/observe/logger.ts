/** The broker's log: JSON lines by pino, written from the main thread only. Keys and proofs are never given to it. */
import pino, { type DestinationStream, type Logger } from 'pino'

export type { Logger } from 'pino'

export interface LogOptions {
  /** A level of pino, or 'silent'. */
  readonly level: string
  /** Default: standard error. */
  readonly stream?: DestinationStream
}

const STANDARD_ERROR = 2

export function createLogger(options: LogOptions, node: string): Logger {
  const settings = { level: options.level, base: { node, pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }
  return pino(settings, options.stream ?? pino.destination({ fd: STANDARD_ERROR, sync: true }))
}
