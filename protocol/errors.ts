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
    return { code: this.code, message: this.message, context: JSON.stringify(this.context) }
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

function parseContext(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
