// d = daemun(): the servers, best first; d.fetch("api", "/cart") tries the next when one fails.
function daemun({doors,role:mine="frontdoor",key,ttl,timeout=3e3,watch=1,store=1,fetch:get=fetch}={}) {
let query=key ? "?key="+encodeURIComponent(key) : "",seen,busy,next,live,door,here,hidden,
end={},gap={},rtt={},lots={},told=new Set(),

at=(url,path)=>url.replace(/\/*$/,"/")+path.replace(/^\/*/,""),
held=url=>end[url]>Date.now(),
hold=url=>held(url) || (end[url]=Date.now()+(gap[url]=Math.min(gap[url]*2 || 5e3,6e4))),

// A whole answer, unless nothing comes for `timeout` ms.
ask=async (url,init)=>{
	let own=new AbortController(),stop=()=>own.abort(),by=init.signal,t,
	wait=()=>{clearTimeout(t); t=setTimeout(stop,timeout)}
	if (by) by.aborted ? stop() : by.addEventListener("abort",stop)
	try {
		wait()
		let r=await get(url,{...init,signal:own.signal})
		if (r.body) for (let b=r.clone().body.getReader(); !(await b.read()).done;) wait()
		return r
	} finally {
		clearTimeout(t)
		if (by) by.removeEventListener("abort",stop)
	}
},

// Throws what is no list, or an empty one.
take=(text,source="live")=>{
	let list=JSON.parse(text),now=list.servers=list.servers.filter(s=>s.url)
	d.list=now[0].url && list
	d.source=source
	if (seen!=(seen=JSON.stringify(now))) for (let f of told) try {f(list)} catch (e) {console.error(e)}
	try {if (store) localStorage["daemun:servers"]=text} catch (e) {}
},

drop=()=>live=live && live.close(),
// A stream that speaks puts the next poll off.
later=()=>{
	clearTimeout(next)
	next=setTimeout(tick,(ttl || d.list.ttl || 15)*(live ? 4 : 1)*(800+400*Math.random()))
},
tick=async fresh=>{
	drop()
	fresh || await d.refresh()
	if (watch && !live && !hidden) try {
		live=new EventSource(at(door,"v1/servers/watch"+query))
		live.onmessage=e=>{later(); try {take(e.data)} catch (e) {}}
		live.onerror=()=>{drop(); later(); d.refresh()}
	} catch (e) {}
	later()
},

ready=async role=>(d.source || await d.refresh(),d.servers(role)),
d={
list:{servers:[]},
servers(role=mine) {
	let all=d.list.servers.filter(s=>s.role==role),
	turn=s=>held(s.url)*99+"degraded draining down".indexOf(s.health),
	far=s=>all.some(t=>turn(t)==turn(s) && rtt[t.url]+15<(rtt[s.url] || 1e9)),
	lot=s=>(lots[s.name]=lots[s.name] || -Math.log(Math.random())) / s.weight
	return all.sort((a,b)=>key && d.source=="live" ? held(a.url)-held(b.url)
		: turn(a)-turn(b) || far(a)-far(b) || a.priority-b.priority || lot(a)-lot(b))
},
choose:role=>(d.servers(role)[0] || {}).url,
async fetch(role,path="",init={}) {
	let r=Error("no server"),by=init.signal,
	again=/^(get|head|options|put|delete)$/i.test(init.method || "get") || new Headers(init.headers).has("idempotency-key")
	for (let {url} of await ready(role)) {
		r=await ask(at(url,path),init).catch(e=>e)
		if (r.status<502 || r.status>504) {end[url]=gap[url]=0; return r}
		if (by && by.aborted) break
		hold(url)
		if (!again) break
	}
	if (!again && r.status) return r
	throw r.status ? Error(r.url+": "+r.status) : r
},
measure:async role=>Promise.all((await ready(role)).map(async ({url,role})=>{
	for (let i of [1,2]) try { // the first connects
		let t=Date.now()
		await ask(role=="frontdoor" ? at(url,"v1/ping") : url,{method:"HEAD",mode:"no-cors",cache:"no-store"})
		rtt[url]=Date.now()-t || 1
	} catch (e) {hold(url)}
})),
refresh:()=>busy=busy || (async ()=>{
	for (let u of new Set([].concat(here,d.list.doors,doors))) try {
		take(await (await ask(at(u,"v1/servers"+query),{cache:"no-cache"})).text())
		door=u
		break
	} catch (e) {}
	busy=0
	return d.list
})(),
on:f=>told.add(f) && (()=>told.delete(f)),
close() {tick=later=()=>{}; watch=0; clearTimeout(next); drop(); told.clear()}
}

try {
	here=location.origin+"/"
	for (let e of ["online","visibilitychange"]) addEventListener(e,()=>tick(hidden=document.hidden))
	hidden=document.hidden
	take(document.getElementById("daemun-servers").textContent,"embedded")
	door=here
} catch (e) {
	try {if (store) take(localStorage["daemun:servers"],"kept")} catch (e) {}
}
tick(door)
return d
}
try {module.exports=daemun} catch (e) {}
