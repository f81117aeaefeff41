"""The page behind a set-up link: password, QR code, first code. One file, no script or style of anybody else."""

import base64
import hashlib
from typing import Final

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;color:#222;background:#fff}
label{display:block;margin:1rem 0 .2rem}input{font:inherit;padding:.4rem;width:100%;box-sizing:border-box}
button{font:inherit;margin-top:1rem;padding:.5rem 1.2rem}[hidden]{display:none}#said{margin-top:1rem;font-weight:600}
code{overflow-wrap:anywhere}@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}#qr{background:#fff}}
"""
_SCRIPT: Final = """
const said=document.getElementById('said');let bearer='',link=location.hash.slice(1);
const user=new URLSearchParams(location.search).get('user')||'';document.getElementById('who').textContent=user;
history.replaceState(null,'',location.pathname+'?user='+encodeURIComponent(user));
function known(){link='';document.getElementById('ask').textContent='Your password on this host';
  document.getElementById('password').autocomplete='current-password'}
function show(first){document.getElementById('first').hidden=!first;document.getElementById('second').hidden=first}
function again(){bearer='';known();show(true);
  said.textContent='That took too long, and you are signed in no more. Enter your password again, then scan again.'}
if(!link)known();
async function say(path,body){
  let answer,told;
  try{answer=await fetch(path,{method:'POST',headers:{'Content-Type':'application/json',
    ...(bearer?{Authorization:'Bearer '+bearer}:{})},body:JSON.stringify(body)});told=await answer.json()}
  catch(gone){said.textContent='Nothing answers here any more. Is htdag running? Open the page anew: on its host '
    +'`htdag users setup '+user+'` goes on, and `htdag users list` shows a link that is not used yet.';throw gone}
  if(!answer.ok){if(told.code==='not_signed_in')again();else said.textContent=told.title+(told.hint?': '+told.hint:'');
    throw told}
  said.textContent='';return told}
document.getElementById('first').addEventListener('submit',async event=>{event.preventDefault();
  const password=event.target.password.value;
  try{bearer=(await say(link?'/auth/password/':'/auth/session/',
    link?{user,token:link,password}:{user,password})).session}
  catch(told){if(told.code==='bad_link'){known();said.textContent+=' If you have a password already, enter it here.'}
    throw told}
  const made=await say('/auth/mfa/setup/',{});
  document.getElementById('qr').src='data:image/svg+xml,'+encodeURIComponent(
    made.qr_svg.replace('<svg ','<svg xmlns="http://www.w3.org/2000/svg" '));
  document.getElementById('secret').textContent=made.secret;
  show(false)});
document.getElementById('second').addEventListener('submit',async event=>{event.preventDefault();
  await say('/auth/mfa/verify/',{code:event.target.code.value});
  document.getElementById('second').hidden=true;said.textContent='Proof is on. You can close this page.'});
"""


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


POLICY: Final = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; img-src data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE: Final = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>htdag: set up your account</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>Welcome, <span id="who"></span></h1>
<form id="first"><label for="password" id="ask">Choose a password for this host (8 characters or more)</label>
<input id="password" name="password" type="password" minlength="8" autocomplete="new-password" required autofocus>
<button>Continue</button></form>
<form id="second" hidden><p>Scan this with your authenticator app, or type the secret <code id="secret"></code>.</p>
<img id="qr" alt="QR code of the secret" width="260" height="260">
<label for="code">Then enter the code it shows</label>
<input id="code" name="code" inputmode="numeric" autocomplete="one-time-code" required>
<button>Confirm</button></form><p id="said" role="status"></p><script>{_SCRIPT}</script></body></html>
"""
