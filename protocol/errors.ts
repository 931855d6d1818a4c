import { type ErrorCategory, type ErrorCode, errorCodes, isErrorCode } from './error-codes.js'

/** The one error class of the project. Match `code`, never the text. `context` holds the offending values. */
export class SharedVerbsError extends Error {
  override readonly name = 'SharedVerbsError'
  readonly code: ErrorCode
  readonly category: ErrorCategory
  readonly context: Readonly<Record<string, unknown>>

  /** `message` says what was attempted, the value, and the cure. */
  constructor(code: ErrorCode, message: string, context: Record<string, unknown> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    this.category = errorCodes[code]
    this.context = context
  }

  /** Form in which errors travel in control replies. */
  toWire(): WireError {
    return { code: this.code, message: this.message, context: printContext(this.context) }
  }

  static fromWire(wire: WireError): SharedVerbsError {
    const code = isErrorCode(wire.code) ? wire.code : 'internal-error'
    return new SharedVerbsError(code, wire.message, parseContext(wire.context))
  }
}

export interface WireError {
  readonly code: string
  readonly message: string
  /** JSON text. */
  readonly context: string
}

/** Context may hold what JSON cannot: big integers travel as text, what has no end not at all. An error about an error helps nobody. */
function printContext(context: Readonly<Record<string, unknown>>): string {
  try {
    return JSON.stringify(context, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value))
  } catch {
    return '{}'
  }
}

function parseContext(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    const isRecord = typeof value === 'object' && value !== null && !Array.isArray(value)
    return isRecord ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
