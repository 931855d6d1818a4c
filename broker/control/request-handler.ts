/** How a request is answered: the shape that every handler has. */
import type { CheckedBody, RequestName, RequestResult } from '../../protocol/control.js'
import type { Session } from '../sessions/session.js'
import type { SharedObject } from '../sessions/shared-object.js'
import type { ControlPlane } from './control-plane.js'

export interface Answer<Name extends RequestName> {
  readonly result: RequestResult<Name>
  /** Descriptors beside the reply; undefined when what they belong to is gone by the time a repeat asks again. */
  readonly descriptors?: () => readonly number[] | undefined
}

/** Requests that begin what the connection is for. */
export type OpeningName = 'attach' | 'reattach' | 'handover'
/** All others. */
export type SessionRequestName = Exclude<RequestName, OpeningName>

export type Handler<Name extends SessionRequestName> = (
  plane: ControlPlane,
  session: Session,
  body: CheckedBody<Name>,
  /** As many as the request's definition says; the handler's in any case. */
  presented: readonly number[],
) => Answer<Name> | Promise<Answer<Name>>

export type Handlers = { readonly [Name in SessionRequestName]: Handler<Name> }

export const nothing = { result: {} } as const

/** The segment of an object, as long as it lives. */
export const segmentOf = (object: SharedObject) => (): readonly number[] | undefined =>
  object.mapping.closed ? undefined : [object.mapping.fd]
